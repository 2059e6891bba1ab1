# The database's VPC: it has no route to or from the internet, only a peering with the cluster's VPC.

resource "aws_vpc" "database" {
  cidr_block           = var.database_range
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = "${var.name}-database" }
}

resource "aws_default_security_group" "database" {
  vpc_id = aws_vpc.database.id
}

resource "aws_subnet" "database" {
  for_each = { for number, zone in var.zones : zone => number }

  vpc_id            = aws_vpc.database.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.database_range, 8, each.value)

  tags = { Name = "${var.name}-database-${each.key}" }
}

resource "aws_route_table" "database" {
  vpc_id = aws_vpc.database.id

  tags = { Name = "${var.name}-database" }
}

resource "aws_route_table_association" "database" {
  for_each = aws_subnet.database

  route_table_id = aws_route_table.database.id
  subnet_id      = each.value.id
}

# --- Peering

resource "aws_vpc_peering_connection" "database" {
  vpc_id      = aws_vpc.cluster.id
  peer_vpc_id = aws_vpc.database.id
  auto_accept = true # both VPCs are in the same account and region

  tags = { Name = "${var.name}-database" }
}

# A separate resource, because options can only be set when the peering is active.
resource "aws_vpc_peering_connection_options" "database" {
  vpc_peering_connection_id = aws_vpc_peering_connection.database.id

  requester {
    allow_remote_vpc_dns_resolution = true
  }

  accepter {
    allow_remote_vpc_dns_resolution = true
  }
}

# Only the private subnets have a route to the database, and it has routes only to them.
resource "aws_route" "private_database" {
  for_each = aws_route_table.private

  route_table_id            = each.value.id
  destination_cidr_block    = var.database_range
  vpc_peering_connection_id = aws_vpc_peering_connection.database.id
}

resource "aws_route" "database_private" {
  for_each = aws_subnet.private

  route_table_id            = aws_route_table.database.id
  destination_cidr_block    = each.value.cidr_block
  vpc_peering_connection_id = aws_vpc_peering_connection.database.id
}
