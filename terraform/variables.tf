variable "name" {
  description = "Name of the cluster, and the beginning of the names of all else."
  type        = string
  default     = "olimac"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "The name has 2 to 21 lower-case letters, digits and hyphens, the first a letter: role names grow from it."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "us-east-1"
}

variable "zones" {
  description = "The two availability zones."
  type        = list(string)
  default     = ["us-east-1a", "us-east-1b"]

  validation {
    condition     = length(distinct(var.zones)) == 2 && alltrue([for zone in var.zones : startswith(zone, var.region)])
    error_message = "There are two zones, not the same, both in the region."
  }
}

variable "cluster_range" {
  description = "Addresses of the cluster's VPC, a /16."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(regex("^[0-9.]+/16$", var.cluster_range)) && can(cidrhost(var.cluster_range, 0))
    error_message = "The range is a /16, such as 10.0.0.0/16."
  }
}

variable "database_range" {
  description = "Addresses of the database's VPC, a /16 other than the cluster's: peered VPCs may not overlap."
  type        = string
  default     = "10.1.0.0/16"

  validation {
    condition     = can(regex("^[0-9.]+/16$", var.database_range)) && can(cidrhost(var.database_range, 0))
    error_message = "The range is a /16, such as 10.1.0.0/16."
  }

  validation {
    condition     = try(cidrhost(var.database_range, 0) != cidrhost(var.cluster_range, 0), true)
    error_message = "The database's range overlaps the cluster's: AWS would fail to peer them."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway in each zone. One for both costs half, and the nodes of one zone lose the way out with the other."
  type        = bool
  default     = true
}

variable "kubernetes_version" {
  description = "Minor version of the cluster, one in standard support."
  type        = string
  default     = "1.35"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "The version is a minor one, such as 1.35."
  }
}

variable "admins" {
  description = "ARNs of the IAM roles and users who administer the cluster, the deploying role among them."
  type        = set(string)

  validation {
    condition     = length(var.admins) > 0 && alltrue([for arn in var.admins : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/", arn))])
    error_message = "At least one ARN of an IAM role or user is needed: whoever makes the cluster has no rights in it."
  }
}

variable "api_ranges" {
  description = "Networks that may reach the cluster's API from outside. Empty: none may, and deploying takes a way into the VPC."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for range in var.api_ranges : can(cidrhost(range, 0))])
    error_message = "Each is a network, such as 203.0.113.0/24."
  }
}

variable "node_type" {
  description = "EC2 instance type of the nodes."
  type        = string
  default     = "t3.medium"
}

variable "nodes" {
  description = "How few and how many nodes there are; the autoscaler decides between."
  type        = object({ least = number, most = number })
  default     = { least = 2, most = 5 }

  validation {
    condition     = var.nodes.least >= 2 && var.nodes.most >= var.nodes.least
    error_message = "There are at least two nodes, one in each zone, and not fewer at most than at least."
  }
}

variable "database_type" {
  description = "RDS instance class."
  type        = string
  default     = "db.t4g.micro"
}

variable "database_multi_zone" {
  description = "A standby in the other zone, which takes over within a minute or two; it costs as much again."
  type        = bool
  default     = false
}

variable "database_storage_gb" {
  description = "Storage at first, and the most that it may grow to, in GB."
  type        = object({ first = number, most = number })
  default     = { first = 20, most = 100 }

  validation {
    condition     = var.database_storage_gb.first >= 20 && var.database_storage_gb.most > var.database_storage_gb.first
    error_message = "gp3 storage begins at 20 GB, and has to have room to grow."
  }
}

variable "database_backup_days" {
  description = "How long backups are kept."
  type        = number
  default     = 7

  validation {
    condition     = var.database_backup_days >= 7 && var.database_backup_days <= 35
    error_message = "Backups are kept for 7 to 35 days."
  }
}

variable "is_protected" {
  description = "Whether the database refuses to be deleted. To destroy everything, turn it off and apply first."
  type        = bool
  default     = true
}

variable "log_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([7, 14, 30, 60, 90, 180, 365, 731], var.log_days)
    error_message = "CloudWatch keeps logs for 7, 14, 30, 60, 90, 180, 365 or 731 days (of what makes sense here)."
  }
}

variable "domain" {
  description = "The hosted zone, which exists beforehand, with an issued certificate for the service's name."
  type        = string
  default     = "olimac.link"
}

variable "host" {
  description = "The service's name within the domain."
  type        = string
  default     = "flask"
}

variable "alarm_email" {
  description = "Who is told of alarms. Empty: nobody, until someone subscribes to the topics."
  type        = string
  default     = ""
}
