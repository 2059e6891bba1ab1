# The domain, its hosted zone and its certificate are created by hand before, and looked up by name here.

data "aws_route53_zone" "main" {
  name         = var.domain
  private_zone = false
}

data "aws_acm_certificate" "main" {
  domain      = var.domain
  statuses    = ["ISSUED"]
  most_recent = true
}
