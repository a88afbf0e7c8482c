"""Reading the dataset of a server in the form in which it sends it to replicas, without a server."""
