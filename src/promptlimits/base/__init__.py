"""What every room stands on: errors, checks, files, exact numbers and outward rounding."""
