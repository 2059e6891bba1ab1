# Settings that AWS would refuse only while they are applied, or that would not work, are refused by the plan.

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

run "services_have_the_range_that_eks_would_choose" {
  command = plan

  assert {
    condition     = aws_eks_cluster.main.kubernetes_network_config[0].service_ipv4_cidr == "172.20.0.0/16"
    error_message = "The range is the one that EKS chooses for a VPC within 10.0.0.0/8."
  }
}

run "services_within_the_clusters_network_are_refused" {
  command = plan

  variables {
    service_range = "10.0.128.0/20"
  }

  expect_failures = [var.service_range]
}

run "services_around_the_databases_network_are_refused" {
  command = plan

  variables {
    cluster_range  = "172.16.0.0/16"
    database_range = "172.21.0.0/16"
    service_range  = "172.16.0.0/12"
  }

  expect_failures = [var.service_range]
}

run "services_with_a_range_that_eks_refuses_are_refused" {
  command = plan

  variables {
    service_range = "100.64.0.0/16"
  }

  expect_failures = [var.service_range]
}

run "services_with_host_bits_are_refused" {
  command = plan

  variables {
    service_range = "172.20.1.1/16"
  }

  expect_failures = [var.service_range]
}

run "a_public_network_of_the_database_is_refused" {
  command = plan

  variables {
    database_range = "172.32.0.0/16"
  }

  expect_failures = [var.database_range]
}

run "a_public_network_of_the_cluster_is_refused" {
  command = plan

  variables {
    cluster_range = "11.0.0.0/16"
  }

  expect_failures = [var.cluster_range]
}

run "a_private_network_outside_the_vpc_is_refused" {
  command = plan

  variables {
    api_ranges = ["192.168.1.0/24"]
  }

  expect_failures = [var.api_ranges]
}

run "ipv6_is_refused_outside_the_vpc" {
  command = plan

  variables {
    api_ranges = ["2001:db8::/32"]
  }

  expect_failures = [var.api_ranges]
}

run "only_a_certificate_that_the_balancer_takes_is_found" {
  command = plan

  variables {
    certificate = "*.olimac.link"
  }

  assert {
    condition     = data.aws_acm_certificate.main.domain == "*.olimac.link" && data.aws_acm_certificate.main.key_types == toset(["RSA_2048"])
    error_message = "The certificate has the name that was given, and an RSA key of 2048 bits."
  }
}

run "a_wildcard_that_does_not_cover_the_host_is_refused" {
  command = plan

  variables {
    host        = "staging.flask"
    certificate = "*.olimac.link"
  }

  expect_failures = [var.certificate]
}

run "a_local_zone_is_refused" {
  command = plan

  variables {
    zones = ["us-east-1a", "us-east-1-bos-1a"]
  }

  expect_failures = [var.zones]
}

run "a_type_of_ec2_is_refused_for_the_database" {
  command = plan

  variables {
    database_type = "t4g.micro"
  }

  expect_failures = [var.database_type]
}

run "a_host_that_is_no_name_is_refused" {
  command = plan

  variables {
    host = "https://flask"
  }

  expect_failures = [var.host]
}
