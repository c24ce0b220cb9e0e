"""`nonn-plan ui` as a process of its own, and a client of it."""

import json
import signal
import subprocess
import sys

import httpx2
import psutil


class RunningServer:
    """A running server, its address, and the solver processes that it has."""

    def __init__(self, file):
        command = [sys.executable, "-m", "nonn_plan", "ui", str(file), "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        told = ""
        while "}" not in told:
            told += self.process.stdout.readline()
        self.address = json.loads(told)["address"]
        origin = self.address.rsplit("/", 2)[0]
        self.client = httpx2.Client(base_url=self.address, headers={"origin": origin}, timeout=120)

    def solvers(self):
        """Solver processes that run."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def answer(self, question, rest=False):
        with self.client.stream(
            "POST", "answer", json={"question": question, "rest": rest}
        ) as response:
            assert response.status_code == 200
            return [json.loads(line) for line in response.iter_lines()]

    def end(self, number=signal.SIGTERM):
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(30)
        self.process.stdout.close()
