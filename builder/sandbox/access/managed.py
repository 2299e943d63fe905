"""The managed policies of AWS that people attach to publishers and helpers; others can be made with CreatePolicy.

Source: "AWS managed policy reference guide". What a document allows of services that the sandbox does not have is left
out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

_ARN = "arn:aws:iam::aws:policy/"


def _allow(*actions: str, not_actions: Sequence[str] = ()) -> str:
    said = {"NotAction": list(not_actions)} if not_actions else {"Action": list(actions)}
    statement = {"Effect": "Allow", **said, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


_READ = ("ec2:Describe*", "ec2:Get*", "ec2:List*")
DOCUMENTS = {
    _ARN + name: text
    for name, text in {
        "AdministratorAccess": _allow("*"),
        "AmazonEC2FullAccess": _allow("ec2:*", "elasticloadbalancing:*", "cloudwatch:*", "autoscaling:*"),
        "AmazonEC2ReadOnlyAccess": _allow("ec2:Describe*", "ec2:GetSecurityGroupsForVpc"),
        "AmazonS3FullAccess": _allow("s3:*", "s3-object-lambda:*"),
        "AmazonS3ReadOnlyAccess": _allow("s3:Get*", "s3:List*", "s3:Describe*"),
        "AmazonSSMFullAccess": _allow("ssm:*", "ec2:DescribeInstanceStatus"),
        "AmazonSSMReadOnlyAccess": _allow("ssm:Describe*", "ssm:Get*", "ssm:List*"),
        "IAMFullAccess": _allow("iam:*"),
        "IAMReadOnlyAccess": _allow("iam:Get*", "iam:List*", "iam:Simulate*"),
        "PowerUserAccess": _allow(not_actions=("iam:*", "organizations:*", "account:*")),
        "ReadOnlyAccess": _allow(*_READ, "ebs:Get*", "ebs:List*", "s3:Get*", "s3:List*", "iam:Get*", "iam:List*",
                                 "ssm:Describe*", "ssm:Get*", "ssm:List*"),
    }.items()
}  # fmt: skip
