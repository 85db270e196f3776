# The last line of the joined Python program.

main()
