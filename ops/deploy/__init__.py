"""The deployment steps that Terraform does not do: Kubernetes objects, database, DNS record, logging, smoke test."""
