variable "name" {
  description = "Name of the cluster, and prefix of the names of all other resources."
  type        = string
  default     = "olimac"
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "us-east-1"
}

variable "bucket" {
  description = "Name of the bucket for the state. It must be unique across AWS."
  type        = string
}

variable "repository" {
  description = "Repository whose jobs get access, as GitHub's tokens name it: ORG@ID/REPO@ID, or ORG/REPO if it was created before 15 July 2026."
  type        = string

  validation {
    condition     = can(regex("^[^/:*?]+/[^/:*?]+$", var.repository))
    error_message = "The repository must be ORG@ID/REPO@ID or ORG/REPO, without wildcards."
  }
}
