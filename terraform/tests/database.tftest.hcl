# The database is private, encrypted and protected from loss.

mock_provider "aws" {
  source = "./tests"
}

mock_provider "aws" {
  alias  = "us_east_1"
  source = "./tests"
}

variables {
  admins = ["arn:aws:iam::123456789012:role/deploy"]
}

run "the_database_is_private" {
  assert {
    condition     = !aws_db_instance.main.publicly_accessible
    error_message = "The database has no public address."
  }

  assert {
    condition     = aws_db_subnet_group.main.subnet_ids == toset([for subnet in aws_subnet.database : subnet.id]) && alltrue([for subnet in aws_subnet.database : subnet.vpc_id == aws_vpc.database.id])
    error_message = "The database is in its own VPC."
  }

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.database : rule.cidr_ipv4]) == toset([for subnet in aws_subnet.private : subnet.cidr_block])
    error_message = "Only the private subnets of the cluster can reach the database."
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.database : rule.from_port == 5432 && rule.to_port == 5432 && rule.ip_protocol == "tcp"])
    error_message = "They can reach PostgreSQL's port and no other."
  }

  assert {
    condition     = aws_db_instance.main.vpc_security_group_ids == toset([aws_security_group.database.id])
    error_message = "The database has only that security group."
  }
}

run "data_is_encrypted_at_rest_and_in_transit" {
  assert {
    condition     = aws_db_instance.main.storage_encrypted
    error_message = "The storage is encrypted."
  }

  assert {
    condition     = one([for parameter in aws_db_parameter_group.main.parameter : parameter.value if parameter.name == "rds.force_ssl"]) == "1"
    error_message = "The database accepts only TLS connections."
  }
}

run "the_log_has_no_parameters" {
  assert {
    condition     = one([for parameter in aws_db_parameter_group.main.parameter : parameter.value if parameter.name == "log_parameter_max_length"]) == "0"
    error_message = "A slow statement is logged without its parameters."
  }
}

run "aws_manages_the_password" {
  assert {
    condition     = aws_db_instance.main.manage_master_user_password && aws_db_instance.main.password == null
    error_message = "AWS manages the password, so it is not in the state."
  }
}

run "the_database_is_protected_from_loss" {
  assert {
    condition     = aws_db_instance.main.deletion_protection && !aws_db_instance.main.skip_final_snapshot && aws_db_instance.main.backup_retention_period == 7
    error_message = "Deletion protection and the final snapshot are on, and backups are kept for a week."
  }
}

run "a_variable_adds_a_standby" {
  variables {
    database_multi_zone = true
  }

  assert {
    condition     = aws_db_instance.main.multi_az
    error_message = "There is a standby in the other zone."
  }
}

run "fewer_than_seven_days_of_backups_are_refused" {
  command = plan

  variables {
    database_backup_days = 1
  }

  expect_failures = [var.database_backup_days]
}
