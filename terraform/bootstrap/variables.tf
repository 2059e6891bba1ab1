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

variable "apply_subject" {
  description = "Whose jobs may change things, as GitHub's tokens say it: repo:ORG@ID/REPO@ID:environment:production, or repo:ORG/REPO:environment:production where the repository is older than 15 July 2026."
  type        = string

  validation {
    condition     = can(regex("^repo:[^*]+:environment:[^*]+$", var.apply_subject))
    error_message = "The subject names one repository and one environment, without wildcards."
  }
}

variable "plan_subject" {
  description = "Whose jobs may look, likewise: repo:ORG@ID/REPO@ID:pull_request."
  type        = string

  validation {
    condition     = can(regex("^repo:[^*]+:pull_request$", var.plan_subject))
    error_message = "The subject names the pull requests of one repository, without wildcards."
  }
}
