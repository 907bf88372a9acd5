"""`lgdrl play`: one window in which people look, drive, teach and compare.

`session` moves worlds and asks learner and expert, `training` does so while a learner learns; `app` is the window's
loop; `panel` draws what the road does not show; `controls` gives keys and buttons their meaning; `puppet` drives the
window as a person would, by input events; `film` writes tracks as videos without any window.
"""
