"""What each stage optimises, as pure functions of state and batch."""
