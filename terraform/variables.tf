variable "name" {
  description = "Name of the cluster, and prefix of the names of all other resources."
  type        = string
  default     = "olimac"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "The name must have 2 to 21 lower-case letters, digits and hyphens, and start with a letter: it is a prefix of role names."
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
    condition     = length(distinct(var.zones)) == 2 && alltrue([for zone in var.zones : can(regex("^${var.region}[a-z]$", zone))])
    error_message = "There must be two different availability zones, both in the region. EKS takes no local zones."
  }
}

variable "cluster_range" {
  description = "Address range of the cluster's VPC, a private /16."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(regex("^(10\\.[0-9]+|172\\.(1[6-9]|2[0-9]|3[01])|192\\.168)\\.0\\.0/16$", var.cluster_range)) && can(cidrhost(var.cluster_range, 0))
    error_message = "The range must be a private /16, such as 10.0.0.0/16."
  }
}

variable "database_range" {
  description = "Address range of the database's VPC, a private /16. It must differ from the cluster's, because peered VPCs must not overlap."
  type        = string
  default     = "10.1.0.0/16"

  validation {
    condition     = can(regex("^(10\\.[0-9]+|172\\.(1[6-9]|2[0-9]|3[01])|192\\.168)\\.0\\.0/16$", var.database_range)) && can(cidrhost(var.database_range, 0))
    error_message = "The range must be a private /16, such as 10.1.0.0/16."
  }

  validation {
    condition     = try(cidrhost(var.database_range, 0) != cidrhost(var.cluster_range, 0), true)
    error_message = "The database's range must not overlap the cluster's: AWS does not peer such VPCs."
  }
}

variable "service_range" {
  description = "Address range of the cluster's Services, a private /12 to /24. It exists only within the cluster, and a cluster keeps it forever."
  type        = string
  default     = "172.20.0.0/16"

  validation {
    condition     = can(regex("^(10|172\\.(1[6-9]|2[0-9]|3[01])|192\\.168)\\..*/(1[2-9]|2[0-4])$", var.service_range)) && try(cidrsubnet(var.service_range, 0, 0) == var.service_range, false)
    error_message = "The range of Services must be a private network from /12 to /24, such as 172.20.0.0/16."
  }

  # Two networks overlap if they are the same at the shorter of their two prefixes.
  validation {
    condition = alltrue([
      for range in [var.cluster_range, var.database_range] :
      try(cidrsubnet("${split("/", range)[0]}/${min(16, split("/", var.service_range)[1])}", 0, 0) != cidrsubnet("${split("/", var.service_range)[0]}/${min(16, split("/", var.service_range)[1])}", 0, 0), true)
    ])
    error_message = "The range of Services must overlap neither the cluster's VPC nor the database's: pods could not reach what has the same addresses."
  }
}

variable "nat_per_zone" {
  description = "Whether each zone has its own NAT gateway. One for both costs half, but if its zone fails, no node can reach the internet."
  type        = bool
  default     = true
}

variable "kubernetes_version" {
  description = "Kubernetes minor version of the control plane, which nodes, add-ons and autoscaler follow. Raise it by one minor version at a time."
  type        = string
  default     = "1.35"

  validation {
    condition     = contains(keys(local.autoscaler_versions), var.kubernetes_version)
    error_message = "The version must be a minor version for which upgrades.tf has a release of the autoscaler: ${join(", ", keys(local.autoscaler_versions))}."
  }
}

variable "admins" {
  description = "ARNs of the IAM roles and users that administer the cluster, including the role that deploys."
  type        = set(string)

  validation {
    condition     = length(var.admins) > 0 && alltrue([for arn in var.admins : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/", arn))])
    error_message = "There must be at least one ARN of an IAM role or user: the creator of the cluster gets no permissions in it."
  }
}

variable "api_ranges" {
  description = "Networks that may reach the cluster's API from outside the VPC. If empty, the API is private, and deploying needs access to the VPC."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for range in var.api_ranges : can(regex("^[0-9.]+/", range)) && can(cidrhost(range, 0))])
    error_message = "Each range must be an IPv4 network, such as 203.0.113.0/24."
  }

  validation {
    condition     = !anytrue([for range in var.api_ranges : can(regex("^(10|127|169\\.254|172\\.(1[6-9]|2[0-9]|3[01])|192\\.168)\\.", range))])
    error_message = "No range may be private: EKS sees the public addresses of those who call the API from outside the VPC."
  }
}

variable "node_type" {
  description = "EC2 instance type of the nodes. With a Graviton type, such as t4g.medium, the AMI follows, and the image must be built for arm64."
  type        = string
  default     = "t3.medium"
}

variable "nodes" {
  description = "Minimum (least) and maximum (most) number of nodes. The autoscaler chooses a number between them."
  type        = object({ least = number, most = number })
  default     = { least = 2, most = 5 }

  validation {
    condition     = var.nodes.least >= 2 && var.nodes.most >= var.nodes.least
    error_message = "The minimum must be at least two nodes, one in each zone, and the maximum must not be below it."
  }
}

variable "database_type" {
  description = "RDS instance class."
  type        = string
  default     = "db.t4g.micro"

  validation {
    condition     = startswith(var.database_type, "db.")
    error_message = "The class must be one of RDS, whose names start with db., such as db.t4g.micro."
  }
}

variable "database_multi_zone" {
  description = "Whether the database has a standby in the other zone, which takes over within one or two minutes. It doubles the cost."
  type        = bool
  default     = false
}

variable "database_storage_gb" {
  description = "Initial (first) and maximum (most) storage, in GB."
  type        = object({ first = number, most = number })
  default     = { first = 20, most = 100 }

  validation {
    condition     = var.database_storage_gb.first >= 20 && var.database_storage_gb.most > var.database_storage_gb.first
    error_message = "The initial storage must be at least 20 GB, the minimum of gp3, and the maximum must be larger."
  }
}

variable "database_backup_days" {
  description = "Days to keep backups."
  type        = number
  default     = 7

  validation {
    condition     = var.database_backup_days >= 7 && var.database_backup_days <= 35
    error_message = "Backups must be kept for 7 to 35 days."
  }
}

variable "log_days" {
  description = "Days to keep logs."
  type        = number
  default     = 30

  validation {
    condition     = contains([7, 14, 30, 60, 90, 180, 365, 731], var.log_days)
    error_message = "The retention must be 7, 14, 30, 60, 90, 180, 365 or 731 days, which CloudWatch supports."
  }
}

variable "access_log_days" {
  description = "Days to keep the load balancer's access logs. They have a line for each request, and what callers wrote into its URL."
  type        = number
  default     = 7

  validation {
    condition     = var.access_log_days >= 1 && var.access_log_days <= 365
    error_message = "Access logs must be kept for 1 to 365 days."
  }
}

variable "domain" {
  description = "Name of the hosted zone. The zone and an issued certificate for the domain must already exist."
  type        = string
  default     = "olimac.link"
}

variable "host" {
  description = "Name of the service within the domain."
  type        = string
  default     = "flask"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", var.host))
    error_message = "The host must be a name within the domain, such as flask."
  }
}

variable "certificate" {
  description = "Main name of the ACM certificate, such as *.olimac.link. By default it is the domain. The certificate must have an RSA key of 2048 bits."
  type        = string
  default     = null

  # Of other names, only the certificate knows whether it covers the host.
  validation {
    condition     = !startswith(coalesce(var.certificate, "-"), "*.") || var.certificate == replace("${var.host}.${var.domain}", "/^[^.]+/", "*")
    error_message = "The wildcard ${coalesce(var.certificate, "-")} does not cover ${var.host}.${var.domain}: a * stands for one label, so it would have to be ${replace("${var.host}.${var.domain}", "/^[^.]+/", "*")}."
  }
}

variable "budget_dollars" {
  description = "Costs of the whole AWS account in a month at which the topic for tickets gets a message. 0 for none, if the account has a budget already."
  type        = number
  default     = 450

  validation {
    condition     = var.budget_dollars >= 0
    error_message = "The budget must be an amount of US dollars, or 0 for none."
  }
}

variable "alarm_email" {
  description = "Email address that gets alarms. If empty, no one gets them until someone subscribes to the topics."
  type        = string
  default     = ""
}
