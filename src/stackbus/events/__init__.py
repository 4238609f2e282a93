"""What a notification is: pure, without network or clock."""
