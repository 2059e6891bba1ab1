# The database: never public, always encrypted, not easily lost.

mock_provider "aws" {
  source = "./tests"
}

variables {
  admins = ["arn:aws:iam::123456789012:role/deploy"]
}

run "never_public" {
  assert {
    condition     = !aws_db_instance.main.publicly_accessible
    error_message = "The database has no public address."
  }

  assert {
    condition     = aws_db_subnet_group.main.subnet_ids == toset([for subnet in aws_subnet.database : subnet.id]) && alltrue([for subnet in aws_subnet.database : subnet.vpc_id == aws_vpc.database.id])
    error_message = "It is in the VPC of its own."
  }

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.database : rule.cidr_ipv4]) == toset([for subnet in aws_subnet.private : subnet.cidr_block])
    error_message = "The private subnets of the cluster may reach it, and nobody else."
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.database : rule.from_port == 5432 && rule.to_port == 5432 && rule.ip_protocol == "tcp"])
    error_message = "They reach PostgreSQL's port, and no other."
  }

  assert {
    condition     = aws_db_instance.main.vpc_security_group_ids == toset([aws_security_group.database.id])
    error_message = "It has that security group alone."
  }
}

run "encrypted_at_rest_and_on_the_way" {
  assert {
    condition     = aws_db_instance.main.storage_encrypted
    error_message = "Storage is encrypted."
  }

  assert {
    condition     = one([for parameter in aws_db_parameter_group.main.parameter : parameter.value if parameter.name == "rds.force_ssl"]) == "1"
    error_message = "Nobody connects in the clear."
  }
}

run "its_log_has_no_names_and_amounts" {
  assert {
    condition     = one([for parameter in aws_db_parameter_group.main.parameter : parameter.value if parameter.name == "log_parameter_max_length"]) == "0"
    error_message = "A slow statement is logged without what it was given."
  }
}

run "its_password_is_aws_own" {
  assert {
    condition     = aws_db_instance.main.manage_master_user_password && aws_db_instance.main.password == null
    error_message = "Nobody writes the password, so it is in no state."
  }
}

run "not_easily_lost" {
  assert {
    condition     = aws_db_instance.main.deletion_protection && !aws_db_instance.main.skip_final_snapshot && aws_db_instance.main.backup_retention_period == 7
    error_message = "It refuses to be deleted, leaves a snapshot, and is backed up for a week."
  }
}

run "a_standby_by_variable" {
  variables {
    database_multi_zone = true
  }

  assert {
    condition     = aws_db_instance.main.multi_az
    error_message = "There is a standby in the other zone."
  }
}

run "fewer_backups_are_refused" {
  command = plan

  variables {
    database_backup_days = 1
  }

  expect_failures = [var.database_backup_days]
}
