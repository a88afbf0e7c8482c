"""The running of lastgood: serve, a Prefect server of its own, plans, the demo."""
