# The two networks: which subnets are public, which routes exist, and that the ranges do not overlap.

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

run "there_are_two_public_and_two_private_subnets" {
  assert {
    condition     = toset(keys(aws_subnet.public)) == toset(["us-east-1a", "us-east-1b"])
    error_message = "There is a public subnet in each of the two zones."
  }

  assert {
    condition     = toset(keys(aws_subnet.private)) == toset(["us-east-1a", "us-east-1b"])
    error_message = "There is a private subnet in each of the two zones."
  }

  assert {
    condition     = alltrue([for subnet in aws_subnet.public : subnet.vpc_id == aws_vpc.cluster.id && subnet.tags["kubernetes.io/role/elb"] == "1"])
    error_message = "Public subnets are in the cluster's VPC, and tagged for internet-facing load balancers."
  }

  assert {
    condition     = alltrue([for subnet in aws_subnet.private : subnet.vpc_id == aws_vpc.cluster.id && subnet.tags["kubernetes.io/role/internal-elb"] == "1"])
    error_message = "Private subnets are in the cluster's VPC, and tagged for internal load balancers."
  }

  assert {
    condition     = length(distinct([for subnet in concat(values(aws_subnet.public), values(aws_subnet.private)) : subnet.cidr_block])) == 4
    error_message = "No two subnets have the same range."
  }
}

run "public_routes_lead_to_the_internet_gateway" {
  assert {
    condition     = aws_route.public_internet.gateway_id == aws_internet_gateway.cluster.id && aws_route.public_internet.destination_cidr_block == "0.0.0.0/0"
    error_message = "The public route leads to the internet gateway."
  }

  assert {
    condition     = alltrue([for zone, association in aws_route_table_association.public : association.route_table_id == aws_route_table.public.id])
    error_message = "Both public subnets use the public route table."
  }
}

run "each_zone_has_its_own_nat_gateway" {
  assert {
    condition     = alltrue([for zone, route in aws_route.private_internet : route.nat_gateway_id == aws_nat_gateway.cluster[zone].id && route.gateway_id == null])
    error_message = "A private subnet uses the NAT gateway of its zone."
  }

  assert {
    condition     = alltrue([for zone, gateway in aws_nat_gateway.cluster : gateway.subnet_id == aws_subnet.public[zone].id])
    error_message = "NAT gateways are in public subnets."
  }
}

run "one_nat_gateway_can_serve_both_zones" {
  variables {
    nat_per_zone = false
  }

  assert {
    condition     = keys(aws_nat_gateway.cluster) == ["us-east-1a"]
    error_message = "There is one NAT gateway."
  }

  assert {
    condition     = alltrue([for route in aws_route.private_internet : route.nat_gateway_id == aws_nat_gateway.cluster["us-east-1a"].id])
    error_message = "Both private subnets use it."
  }
}

run "only_private_subnets_have_routes_to_the_database" {
  assert {
    condition     = alltrue([for route in aws_route.private_database : route.destination_cidr_block == var.database_range && route.vpc_peering_connection_id == aws_vpc_peering_connection.database.id])
    error_message = "Each private route table has a route to the database's VPC."
  }

  assert {
    condition     = toset([for route in aws_route.database_private : route.destination_cidr_block]) == toset([for subnet in aws_subnet.private : subnet.cidr_block])
    error_message = "The database's route table has routes only to the private subnets."
  }

  assert {
    condition     = toset([for route in aws_route.database_private : route.route_table_id]) == toset([aws_route_table.database.id])
    error_message = "These routes are in the database's route table."
  }

  assert {
    condition     = aws_vpc_peering_connection_options.database.requester[0].allow_remote_vpc_dns_resolution && aws_vpc_peering_connection_options.database.accepter[0].allow_remote_vpc_dns_resolution
    error_message = "Each VPC resolves the other's DNS names."
  }
}

run "ranges_that_overlap_are_refused" {
  command = plan

  variables {
    cluster_range  = "10.5.0.0/16"
    database_range = "10.5.0.0/16"
  }

  expect_failures = [var.database_range]
}

run "a_range_that_is_not_a_16_is_refused" {
  command = plan

  variables {
    cluster_range = "10.0.0.0/8"
  }

  expect_failures = [var.cluster_range]
}
