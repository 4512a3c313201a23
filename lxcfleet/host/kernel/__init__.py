"""File systems and mounts: system calls that Python lacks, trees, images, quotas, watches."""
