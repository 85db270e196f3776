# Lists of files by size and age.
find . -type f -printf '%s %T@ %p\n' | sort -n > work/by-size.txt
find Documents Pictures -type f -name '*.p*' -exec ls -l {} + > work/list.txt
find . -type d | sort | uniq -c > work/folders.txt
head -n 20 work/by-size.txt | cut -d' ' -f3 | xargs wc -c > work/small.txt
