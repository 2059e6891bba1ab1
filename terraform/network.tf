# The cluster's VPC: load balancers in the public subnets, and nodes in the private ones, which use NAT gateways.

resource "aws_vpc" "cluster" {
  cidr_block           = var.cluster_range
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# The default security group allows no traffic.
resource "aws_default_security_group" "cluster" {
  vpc_id = aws_vpc.cluster.id
}

resource "aws_internet_gateway" "cluster" {
  vpc_id = aws_vpc.cluster.id

  tags = { Name = var.name }
}

resource "aws_subnet" "public" {
  for_each = { for number, zone in var.zones : zone => number }

  vpc_id            = aws_vpc.cluster.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.cluster_range, 8, 128 + each.value)

  tags = {
    Name                                = "${var.name}-public-${each.key}"
    "kubernetes.io/cluster/${var.name}" = "shared"
    "kubernetes.io/role/elb"            = "1" # internet-facing load balancers use these subnets
  }
}

# Large, because each pod has its own address.
resource "aws_subnet" "private" {
  for_each = { for number, zone in var.zones : zone => number }

  vpc_id            = aws_vpc.cluster.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.cluster_range, 2, each.value)

  tags = {
    Name                                = "${var.name}-private-${each.key}"
    "kubernetes.io/cluster/${var.name}" = "shared"
    "kubernetes.io/role/internal-elb"   = "1"
  }
}

resource "aws_eip" "nat" {
  for_each = local.nat_zones

  domain = "vpc"

  tags = { Name = "${var.name}-nat-${each.key}" }
}

resource "aws_nat_gateway" "cluster" {
  for_each = local.nat_zones

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id

  tags = { Name = "${var.name}-${each.key}" }

  depends_on = [aws_internet_gateway.cluster]
}

locals {
  nat_zones = toset(var.nat_per_zone ? var.zones : slice(var.zones, 0, 1))
}

# --- Routes

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.cluster.id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "public_internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.cluster.id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  route_table_id = aws_route_table.public.id
  subnet_id      = each.value.id
}

resource "aws_route_table" "private" {
  for_each = aws_subnet.private

  vpc_id = aws_vpc.cluster.id

  tags = { Name = "${var.name}-private-${each.key}" }
}

resource "aws_route" "private_internet" {
  for_each = aws_route_table.private

  route_table_id         = each.value.id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.cluster[contains(local.nat_zones, each.key) ? each.key : var.zones[0]].id
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  route_table_id = aws_route_table.private[each.key].id
  subnet_id      = each.value.id
}
