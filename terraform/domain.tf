# The domain, its hosted zone and its certificate are created by hand before, and looked up by name here.

data "aws_route53_zone" "main" {
  name         = var.domain
  private_zone = false
}

data "aws_acm_certificate" "main" {
  domain      = coalesce(var.certificate, var.domain)
  key_types   = ["RSA_2048"] # a classic load balancer takes no other ones of ACM's: neither ECDSA nor longer keys
  statuses    = ["ISSUED"]
  most_recent = true
}
