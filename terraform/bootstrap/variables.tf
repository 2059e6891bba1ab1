variable "name" {
  description = "Name of the cluster, and the beginning of the names of all else."
  type        = string
  default     = "olimac"
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "us-east-1"
}

variable "bucket" {
  description = "Name of the bucket for the state: unique among all of AWS."
  type        = string
}

variable "repository" {
  description = "Whose jobs get in, as GitHub's tokens name it: ORG@ID/REPO@ID, or ORG/REPO where the repository is older than 15 July 2026."
  type        = string

  validation {
    condition     = can(regex("^[^/:*?]+/[^/:*?]+$", var.repository))
    error_message = "The repository is one, ORG@ID/REPO@ID or ORG/REPO, without wildcards."
  }
}
