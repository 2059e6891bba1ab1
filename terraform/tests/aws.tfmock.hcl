# Mock values of attributes that AWS computes and whose form the provider checks.

mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws" }
}

mock_data "aws_iam_policy_document" {
  defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::123456789012:role/made-up" }
}

mock_resource "aws_kms_key" {
  defaults = { arn = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000" }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:made-up" }
}

mock_resource "aws_sns_topic" {
  defaults = { arn = "arn:aws:sns:us-east-1:123456789012:made-up" }
}

mock_resource "aws_eks_cluster" {
  defaults = { arn = "arn:aws:eks:us-east-1:123456789012:cluster/made-up" }
}

mock_resource "aws_launch_template" {
  defaults = { id = "lt-00000000000000000", latest_version = 1 }
}

mock_resource "aws_iam_openid_connect_provider" {
  defaults = { arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com" }
}

mock_resource "aws_s3_bucket" {
  defaults = { arn = "arn:aws:s3:::made-up" }
}

mock_resource "aws_iam_policy" {
  defaults = { arn = "arn:aws:iam::123456789012:policy/made-up" }
}

mock_data "aws_elb_service_account" {
  defaults = { arn = "arn:aws:iam::127311923021:root" }
}

# A t3.medium.
mock_data "aws_ec2_instance_type" {
  defaults = {
    supported_architectures              = ["x86_64"]
    memory_size                          = 4096
    maximum_network_interfaces           = 3
    maximum_ipv4_addresses_per_interface = 6
  }
}

mock_data "aws_ssm_parameter" {
  defaults = { value = "1.35.4-20261120" }
}

mock_data "aws_eks_addon_version" {
  defaults = { version = "v1.2.3-eksbuild.4" }
}

# The dates are far away, so that no test depends on the day.
mock_data "aws_eks_cluster_versions" {
  defaults = {
    cluster_versions = [
      { cluster_version = "1.35", version_status = "STANDARD_SUPPORT", end_of_standard_support_date = "2100-03-27T00:00:00Z" },
      { cluster_version = "1.36", version_status = "STANDARD_SUPPORT", end_of_standard_support_date = "2100-08-02T00:00:00Z" },
    ]
  }
}
