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

variable "environments" {
  description = "GitHub environments whose jobs may change everything. Each must exist before, with main as its only branch: GitHub creates a missing one for any job that names it."
  type        = set(string)
  default     = ["production"]

  validation {
    condition     = length(var.environments) > 0 && alltrue([for environment in var.environments : can(regex("^[A-Za-z0-9_-]+$", environment))])
    error_message = "There must be at least one environment, and their names must have only letters, digits, hyphens and underscores."
  }
}
