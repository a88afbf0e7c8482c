"""What watches backups: files for Prometheus, Alertmanager and Grafana."""
