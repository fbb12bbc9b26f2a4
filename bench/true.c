/* Nothing: a static program whose own start costs next to nothing. */
int
main(void)
{
	return 0;
}
