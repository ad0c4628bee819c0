"""What people read: tables and plots of a run."""
