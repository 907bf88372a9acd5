"""`lgdrl play`: one window in which people look, drive, teach and compare.

`command` reads the options; `drivers` makes sessions of them. `session` steps environments and asks learner and expert,
`training` does so while a learner learns; both keep an episode as a `track`. `app` is the window's loop, `pane` one
session in it, `playback` its playhead, `clock` its time; `controls` gives keys and buttons their meaning, `inputs`
routes events; `view` lays out and draws with `panel`, `timeline` and `painter`; `recorder` writes episodes and
pictures. `scripted` drives the window by input events, as a person does; `film` writes tracks as videos without any
window.
"""
