# Word counts by perl over texts.
rnd 20 60; files_in "$r" '*.*' Documents Desktop
echo "$found" | tr '\n' '\0' | xargs -0 perl -ne 'for (split) { $n{$_}++ } END { print "$_ $n{$_}\n" for sort keys %n }' > work/words.txt
perl -pe 's/(\w+)/\u$1/' work/words.txt > work/Words.txt
