# The access logs of the load balancer, which the cluster creates, and whose logs annotations of the Service turn on. They
# have what no log of the service has: requests that reached no pod. They also have callers' addresses and URLs, with the
# names and amounts that callers wrote into a query. So they are kept for a week only.

resource "aws_s3_bucket" "balancer_logs" {
  #checkov:skip=CKV_AWS_18:these are access logs; a bucket for their own would need one in turn
  #checkov:skip=CKV_AWS_21:a log is written once, and its versions would outlive its retention
  #checkov:skip=CKV_AWS_144:as other logs, they are not needed without their region
  #checkov:skip=CKV_AWS_145:a classic load balancer writes only to buckets that use S3's own key
  #checkov:skip=CKV2_AWS_62:nothing needs notifications about logs
  # The account's number makes the name unique across AWS. Like other logs, these are deleted with everything else.
  bucket        = "${var.name}-balancer-logs-${data.aws_caller_identity.current.account_id}"
  force_destroy = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "balancer_logs" {
  bucket = aws_s3_bucket.balancer_logs.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "balancer_logs" {
  bucket = aws_s3_bucket.balancer_logs.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "balancer_logs" {
  bucket = aws_s3_bucket.balancer_logs.id

  rule {
    id     = "retention"
    status = "Enabled"

    filter {}

    expiration {
      days = var.access_log_days
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

resource "aws_s3_bucket_policy" "balancer_logs" {
  bucket = aws_s3_bucket.balancer_logs.id
  policy = data.aws_iam_policy_document.balancer_logs.json

  depends_on = [aws_s3_bucket_public_access_block.balancer_logs]
}

locals {
  # Here, an account of AWS writes the logs; in regions that opened later, a service does.
  # https://docs.aws.amazon.com/elasticloadbalancing/latest/classic/enable-access-logs.html
  regions_with_balancer_account = [
    "af-south-1", "ap-east-1", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1",
    "ap-southeast-2", "ap-southeast-3", "ca-central-1", "eu-central-1", "eu-north-1", "eu-south-1", "eu-west-1",
    "eu-west-2", "eu-west-3", "me-south-1", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
  ]
}

data "aws_elb_service_account" "main" {
  count = contains(local.regions_with_balancer_account, var.region) ? 1 : 0
}

data "aws_iam_policy_document" "balancer_logs" {
  statement {
    sid       = "BalancerWrites"
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.balancer_logs.arn}/AWSLogs/${data.aws_caller_identity.current.account_id}/*"]

    principals {
      type        = length(data.aws_elb_service_account.main) > 0 ? "AWS" : "Service"
      identifiers = length(data.aws_elb_service_account.main) > 0 ? data.aws_elb_service_account.main[*].arn : ["logdelivery.elasticloadbalancing.amazonaws.com"]
    }
  }

  statement {
    sid       = "OnlyTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.balancer_logs.arn, "${aws_s3_bucket.balancer_logs.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}
