# The two networks: who is public, who can reach whom, and that they never overlap.

mock_provider "aws" {
  source = "./tests"
}

variables {
  admins = ["arn:aws:iam::123456789012:role/deploy"]
}

run "two_public_and_two_private_subnets" {
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
    error_message = "Public subnets are the cluster's, and marked for balancers that face the internet."
  }

  assert {
    condition     = alltrue([for subnet in aws_subnet.private : subnet.vpc_id == aws_vpc.cluster.id && subnet.tags["kubernetes.io/role/internal-elb"] == "1"])
    error_message = "Private subnets are the cluster's, and marked for internal balancers."
  }

  assert {
    condition     = length(distinct([for subnet in concat(values(aws_subnet.public), values(aws_subnet.private)) : subnet.cidr_block])) == 4
    error_message = "No two subnets have the same range."
  }
}

run "public_routes_lead_to_the_internet_gateway" {
  assert {
    condition     = aws_route.public_internet.gateway_id == aws_internet_gateway.cluster.id && aws_route.public_internet.destination_cidr_block == "0.0.0.0/0"
    error_message = "What is public goes out by the internet gateway."
  }

  assert {
    condition     = alltrue([for zone, association in aws_route_table_association.public : association.route_table_id == aws_route_table.public.id])
    error_message = "Both public subnets have the public table."
  }
}

run "each_zone_has_its_own_way_out" {
  assert {
    condition     = alltrue([for zone, route in aws_route.private_internet : route.nat_gateway_id == aws_nat_gateway.cluster[zone].id && route.gateway_id == null])
    error_message = "A private subnet goes out by its own zone's NAT gateway."
  }

  assert {
    condition     = alltrue([for zone, gateway in aws_nat_gateway.cluster : gateway.subnet_id == aws_subnet.public[zone].id])
    error_message = "NAT gateways are in public subnets."
  }
}

run "or_one_for_both" {
  variables {
    nat_per_zone = false
  }

  assert {
    condition     = keys(aws_nat_gateway.cluster) == ["us-east-1a"]
    error_message = "There is one NAT gateway."
  }

  assert {
    condition     = alltrue([for route in aws_route.private_internet : route.nat_gateway_id == aws_nat_gateway.cluster["us-east-1a"].id])
    error_message = "Both private subnets go out by it."
  }
}

run "only_private_subnets_know_the_way_to_the_database" {
  assert {
    condition     = alltrue([for route in aws_route.private_database : route.destination_cidr_block == var.database_range && route.vpc_peering_connection_id == aws_vpc_peering_connection.database.id])
    error_message = "Each private table leads to the database's VPC."
  }

  assert {
    condition     = toset([for route in aws_route.database_private : route.destination_cidr_block]) == toset([for subnet in aws_subnet.private : subnet.cidr_block])
    error_message = "The database's table leads back to the private subnets, and to nothing else."
  }

  assert {
    condition     = toset([for route in aws_route.database_private : route.route_table_id]) == toset([aws_route_table.database.id])
    error_message = "The way back is in the database's table."
  }

  assert {
    condition     = aws_vpc_peering_connection_options.database.requester[0].allow_remote_vpc_dns_resolution && aws_vpc_peering_connection_options.database.accepter[0].allow_remote_vpc_dns_resolution
    error_message = "Names are resolved across the peering."
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

run "a_range_that_is_no_network_is_refused" {
  command = plan

  variables {
    cluster_range = "10.0.0.0/8"
  }

  expect_failures = [var.cluster_range]
}
