"""What monitors make of closed windows. Pure: state goes in as values."""
