"""Diagnosis: why a problem has no plan, what would repair it, which limits bind."""
