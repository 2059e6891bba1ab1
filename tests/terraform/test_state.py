"""Where Terraform keeps its state, with the real Terraform and a mock S3."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.terraform.fixtures import block, run_terraform

pytestmark = pytest.mark.slow

BUCKET = "state"
KEY = "clients-api/terraform.tfstate"
AWS = {"AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up", "AWS_REGION": "us-east-1"}


@pytest.fixture(name="s3")
def run_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket with the encryption of terraform/bootstrap/state.tf."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {**AWS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            monkeypatch.setenv(name, value)
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket=BUCKET)
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}, "BucketKeyEnabled": True}
        s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]})
        yield s3
    finally:
        server.stop()


def write_state(folder: Path, s3: Any, *options: str) -> None:
    """Applies one resource of Terraform itself, with the backend of terraform/versions.tf."""
    folder.mkdir()
    backend = block('backend "s3"', "versions.tf")
    (folder / "main.tf").write_text(f'terraform {{\n{backend}\n}}\nresource "terraform_data" "main" {{}}\n')
    variables = {**AWS, "AWS_ENDPOINT_URL": s3.meta.endpoint_url}
    settings = (f"-backend-config=bucket={BUCKET}", "-backend-config=region=us-east-1", *options)
    run_terraform(folder, "init", *settings, **variables)
    run_terraform(folder, "apply", "-auto-approve", **variables)


def keys(s3: Any) -> set[str]:
    return {one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])}


def test_the_bucket_encrypts_the_state_with_its_kms_key(s3: Any, tmp_path: Path) -> None:
    """With `encrypt = true` and no key, Terraform would ask for S3's own key, and get it."""
    write_state(tmp_path / "production", s3)

    assert s3.head_object(Bucket=BUCKET, Key=KEY)["ServerSideEncryption"] == "aws:kms"
    assert keys(s3) == {KEY}  # the lock is released


def test_a_second_environment_has_its_own_state(s3: Any, tmp_path: Path) -> None:
    """Its key is an option of `terraform init`, as in `make init STATE_KEY=…`."""
    write_state(tmp_path / "production", s3)
    write_state(tmp_path / "staging", s3, "-backend-config=key=clients-api/staging.tfstate")

    assert keys(s3) == {KEY, "clients-api/staging.tfstate"}
