"""What a deployment does beside Terraform: the cluster's objects, the database, the record, logs, a first request."""
