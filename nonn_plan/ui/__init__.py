"""The local page of `nonn-plan ui`: its server, its solver processes, questions and answers."""
