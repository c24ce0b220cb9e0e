"""How accurate a plan will be: fitted to published rows and to finished runs."""
