"""The client's side of a round. Nothing here is run by the server."""
