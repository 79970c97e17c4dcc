"""What a maze agent wants: its choices between cheese and corner, its goals in whole episodes, vector fields, steering,
and saliency maps judged by the way to the cheese."""
