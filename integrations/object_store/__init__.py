"""Object stores that speak S3: the hospital's own (MinIO, Ceph) or a cloud's."""
