"""Accuracy of a plan, fitted to published rows and to finished runs."""
