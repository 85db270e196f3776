# Tables are summed by awk, one by one.
rnd 4 10; files_in "$r" '*.csv' Documents Desktop Downloads Projects
for f in $found; do awk -F, '{ s[$2] += $3 } END { for (k in s) print k, s[k] }' "$f" >> work/sums.txt; done
awk '{ t[$1] += $2 } END { for (k in t) print k, t[k] }' work/sums.txt | sort -k2 -n > work/total.txt
