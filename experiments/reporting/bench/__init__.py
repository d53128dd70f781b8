"""What `msdet bench` measured, as sections of a report."""
