terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }

  # bootstrap/ creates the bucket. `terraform init -backend-config=…` sets its name and region, and the key of a second
  # environment. The bucket encrypts by KMS. `encrypt = true` would ask for S3's own key, which its policy denies.
  backend "s3" {
    key          = "clients-api/terraform.tfstate"
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project   = var.name
      ManagedBy = "terraform"
    }
  }
}
