"""What is measured of StEP alone."""
