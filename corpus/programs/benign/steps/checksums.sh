# Check sums of some folders, verified.
some_of Documents Pictures Projects
find "$w" Music Desktop -type f | sort | tr '\n' '\0' | xargs -0 sha256sum > work/SUMS
sha256sum -c --quiet work/SUMS
