output "bucket" {
  description = "For `terraform init -backend-config=bucket=…`."
  value       = aws_s3_bucket.state.id
}

output "roles" {
  description = "ARNs of the roles that GitHub's jobs take, by what they are for."
  value       = { for purpose, role in aws_iam_role.github : purpose => role.arn }
}
