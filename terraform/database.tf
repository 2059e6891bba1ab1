# PostgreSQL, which only the cluster's private subnets can reach.

resource "aws_db_instance" "main" {
  #checkov:skip=CKV_AWS_157:a standby doubles the cost, so it is a variable
  identifier     = var.name
  engine         = "postgres"
  engine_version = "17"
  instance_class = var.database_type
  db_name        = "clients"
  port           = 5432

  username                      = "postgres"
  manage_master_user_password   = true # AWS creates, stores and rotates it each week; it is not in the state
  master_user_secret_kms_key_id = aws_kms_key.main.arn

  iam_database_authentication_enabled = true # for people; the service has its own role and password

  db_subnet_group_name   = aws_db_subnet_group.main.name
  vpc_security_group_ids = [aws_security_group.database.id]
  publicly_accessible    = false
  multi_az               = var.database_multi_zone

  allocated_storage     = var.database_storage_gb.first
  max_allocated_storage = var.database_storage_gb.most
  storage_type          = "gp3"
  storage_encrypted     = true # with AWS's key for RDS, because the final snapshot outlives the key in key.tf

  parameter_group_name       = aws_db_parameter_group.main.name
  ca_cert_identifier         = "rds-ca-rsa2048-g1"
  auto_minor_version_upgrade = true
  engine_lifecycle_support   = "open-source-rds-extended-support-disabled"

  backup_retention_period   = var.database_backup_days
  copy_tags_to_snapshot     = true
  delete_automated_backups  = false
  deletion_protection       = true # make teardown lifts it
  skip_final_snapshot       = false
  final_snapshot_identifier = "${var.name}-final-${substr(aws_kms_key.main.key_id, 0, 8)}" # unique: each deployment has its own key

  enabled_cloudwatch_logs_exports       = keys(aws_cloudwatch_log_group.database)
  performance_insights_enabled          = true # CloudWatch Database Insights reads it
  performance_insights_kms_key_id       = aws_kms_key.main.arn
  performance_insights_retention_period = 7
  monitoring_interval                   = 60
  monitoring_role_arn                   = aws_iam_role.database_monitoring.arn

  lifecycle {
    ignore_changes = [
      identifier,                    # a restored database takes the place of this one (docs/recovery.md)
      manage_master_user_password,   # an import does not read it, and AWS refuses a second time with a key
      master_user_secret_kms_key_id, # as above
    ]
  }

  depends_on = [aws_iam_role_policy_attachment.database_monitoring]
}

resource "aws_db_subnet_group" "main" {
  name       = var.name
  subnet_ids = [for subnet in aws_subnet.database : subnet.id]
}

resource "aws_db_parameter_group" "main" {
  name_prefix = "${var.name}-"
  family      = "postgres17"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  parameter {
    name  = "log_min_duration_statement"
    value = "500" # ms: slower statements are logged
  }

  parameter {
    name  = "log_statement"
    value = "ddl" # never statements with the clients' names and money
  }

  parameter {
    name  = "log_parameter_max_length"
    value = "0" # by default, a slow statement is logged with its parameters
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "database" {
  name        = "${var.name}-database"
  description = "PostgreSQL, from the private subnets of the cluster"
  vpc_id      = aws_vpc.database.id

  tags = { Name = "${var.name}-database" }
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  for_each = aws_subnet.private

  security_group_id = aws_security_group.database.id
  description       = "PostgreSQL from ${each.key}"
  ip_protocol       = "tcp"
  from_port         = 5432
  to_port           = 5432
  cidr_ipv4         = each.value.cidr_block
}

# --- Logs

resource "aws_cloudwatch_log_group" "database" {
  #checkov:skip=CKV_AWS_338:the retention is a variable, a month by default
  for_each = toset(["postgresql", "upgrade"])

  name              = "/aws/rds/instance/${var.name}/${each.value}"
  retention_in_days = var.log_days
  kms_key_id        = aws_kms_key.main.arn

  lifecycle {
    ignore_changes = [name] # RDS writes to groups of the database's identifier, which a restore changes
  }
}

resource "aws_iam_role" "database_monitoring" {
  name               = "${var.name}-database-monitoring"
  assume_role_policy = data.aws_iam_policy_document.database_monitoring_trust.json
}

data "aws_iam_policy_document" "database_monitoring_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["monitoring.rds.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy_attachment" "database_monitoring" {
  role       = aws_iam_role.database_monitoring.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}
