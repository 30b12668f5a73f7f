"""The server's side of a round. Nothing here is run by a client."""
