"""The numbers of the bundle format and of the clouds that read it."""

PART_SIZE = 10 << 20  # bytes; every tool's and the only one that EC2's documents name
LARGEST_MANIFEST = 5 << 20  # bytes; Eucalyptus' maxmanifestsizebytes
LARGEST_IMAGE_EC2 = 10 << 30  # bytes; ec2-bundle-image's check, and the instance-store root limit of EC2
LARGEST_IMAGE_EUCALYPTUS = 30 << 30  # bytes; Eucalyptus' default of cloud.images.maximagesizegb
